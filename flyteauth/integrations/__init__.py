"""A session inside other libraries' clients: one module for each library, named after it."""
