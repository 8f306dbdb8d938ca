"""What commands say of their results: values, tables and sentences; a file for each kind of answer."""
