from tests.bench.scripted_server import other_scripted, scripted

__all__ = ["other_scripted", "scripted"]
