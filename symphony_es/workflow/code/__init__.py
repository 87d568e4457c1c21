"""Code-first workflows: an async function whose steps are recorded, and skipped when it runs again."""
