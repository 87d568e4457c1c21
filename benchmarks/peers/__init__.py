"""The peers, one module each. Each says at its top how durable it is, and reads it back into its settings."""
