"""The API's reference for people, at /docs: made here of the OpenAPI document, once, at start."""
