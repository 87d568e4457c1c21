"""Looking back: states, differences and histories at any position; going back; forking. Nothing here needs the application's classes."""
