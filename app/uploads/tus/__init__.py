"""tus 1.0 (https://tus.io/protocols/resumable-upload): its headers, and files that grow by pieces. No rows here."""
