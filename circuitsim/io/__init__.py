"""What goes into and comes out of files and terminals: inputs, results, tables, studies."""
