"""One login to RAP over asyncssh."""
