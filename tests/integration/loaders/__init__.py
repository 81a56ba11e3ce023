"""Programs that users have, each through its door: what they read, what that costs the origin."""
