"""The routes of the framework, one module a resource."""
