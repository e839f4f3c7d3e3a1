"""What training minimises: losses on labels and against a teacher. How weights are updated by it is not known here."""
