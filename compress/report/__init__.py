"""What people see: tables, progress, and later pages. Reads plain results and never imports torch."""
