"""Quality over rankings and over (user, item, rank) tables; intervals and tests."""
