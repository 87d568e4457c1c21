"""The core: live objects and the past, the world above them, resuming above that; `symphony_es.core.state` has what users import."""
