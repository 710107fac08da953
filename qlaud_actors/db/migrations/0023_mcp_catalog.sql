-- MCP servers that were registered from the catalogue remember their entry.

ALTER TABLE mcp_servers ADD COLUMN catalog_slug text;
