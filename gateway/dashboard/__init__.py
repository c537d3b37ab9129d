"""The pages that people see: server-rendered, for one member of one organization at a time."""
