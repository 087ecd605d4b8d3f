"""The only code that talks to the API server: what is there (store), what to change (writer), who leads (lease)."""
