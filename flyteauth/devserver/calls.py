"""What a call to the control plane is, and what is asked before any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .connect import Message, Reply
from .identity import profile, subject_of
from .issued import AccessToken

Call = Callable[[Message, AccessToken | None, float], Reply]
"""A message, whose token came with it (None: an anonymous control plane's), and when."""

USER_INFO: Final = "/flyteidl2.auth.IdentityService/UserInfo"


def user_info(access: AccessToken | None) -> Reply:
    """flyteidl2.auth.UserInfoResponse."""
    if access is None:
        return {"subject": "anonymous", "name": "Anonymous"}
    if access.family is None:
        return {"subject": access.subject, "name": access.subject}
    known = profile(access.subject)
    return {
        "subject": subject_of(access.subject),
        "name": known["name"],
        "preferredUsername": known["preferred_username"],
        "email": known["email"],
    }


def identity_of(access: AccessToken | None) -> Reply:
    """flyteidl2.common.EnrichedIdentity: who has done something."""
    subject = "anonymous" if access is None else access.subject
    if access is not None and access.family is None:
        return {"application": {"id": {"subject": subject}}}
    known = profile(subject)
    spec = {"firstName": known["name"], "email": known["email"]}
    return {"user": {"id": {"subject": subject_of(subject)}, "spec": spec}}
