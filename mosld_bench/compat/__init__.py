"""Every use of another library's private parts, one file a library, each assumption with a test in tests/compat.

A module here is named after its library. All but the classes of `transformers.py` work without importing that library,
since `import mosld_bench` must stay cheap.
"""
