"""Other people's files to motion and back; a reader beside its writer, one file a format."""
