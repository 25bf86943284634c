"""CPUs: features, loop strategy and register-tiled kernel templates."""
