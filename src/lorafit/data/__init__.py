"""From any source to checked, split rows."""
