"""Landing: private spool, commit protocol, layout, and the manifest, which is the ledger."""
