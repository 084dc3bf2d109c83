// oidc-provider, strict: PKCE for everybody, refresh tokens that rotate with each use and whose
// reuse ends the whole login, exact redirect URIs except where RFC 8252 §7.3 has any port.
// Prints its issuer when it can be asked. Of its own it answers
//   GET /-/journal        what has been granted and refused, as a list of [event, grant_type, error]
//   GET /-/pass?seconds=  so many seconds pass, at once, for all that expires;
//                         the answer is how many have in all

import http from 'node:http';
import { Provider } from 'oidc-provider';

const GRANTS = ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'];

const person = (client_id, more) => ({
  client_id,
  client_name: client_id,
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: GRANTS,
  redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost:53593/callback'],
  ...more,
});

const service = (client_id, token_endpoint_auth_method, client_secret) => ({
  client_id,
  client_secret,
  token_endpoint_auth_method,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'all',
});

const clients = [
  person('person'),
  person('exact', { application_type: 'web', redirect_uris: ['https://app.example.com/callback'] }),
  service('service basic', 'client_secret_basic', process.env.CLIENT_SECRET),
  service('service post', 'client_secret_post', process.env.CLIENT_SECRET),
];

let passed = 0;
const now = Date.now;
Date.now = () => now() + passed * 1000;

const journal = [];
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post'],
    scopes: ['openid', 'offline_access', 'all'],
    cookies: { keys: ['of a test'] },
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
    },
    clockTolerance: 0,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: 60,
      AuthorizationCode: 10,
      ClientCredentials: 60,
      DeviceCode: 120,
      Grant: 86400,
      IdToken: 60,
      Interaction: 120,
      RefreshToken: 86400,
      Session: 86400,
    },
  });
  for (const event of ['grant.success', 'grant.error', 'grant.revoked', 'authorization.error']) {
    provider.on(event, (ctx, error) => {
      journal.push([event, ctx.oidc?.params?.grant_type ?? null, error?.error ?? null]);
    });
  }
  const answer = provider.callback();
  server.on('request', (request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname === '/-/journal') {
      response.end(JSON.stringify(journal));
    } else if (url.pathname === '/-/pass') {
      passed += Number(url.searchParams.get('seconds'));
      response.end(JSON.stringify(passed));
    } else {
      answer(request, response);
    }
  });
  console.log(JSON.stringify({ issuer }));
});
