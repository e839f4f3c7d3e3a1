"""What operators of several families share: arithmetic on tensors and on Python numbers. None is entered here."""
