"""What people see: progress on standard error, results on standard output."""
