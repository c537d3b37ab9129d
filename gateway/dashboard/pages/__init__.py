"""The pages, one module a resource, as in gateway/routes."""
