"""Wire formats that a client dialect and a provider adapter share, one file each."""
