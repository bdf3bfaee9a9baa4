"""Every use of another library's private parts, one file a library, each assumption with a test."""
