"""The core of symphony_es; `symphony_es.core.state` is the part that users import."""
