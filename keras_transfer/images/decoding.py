"""Image files decoded: checked, turned, resized."""
