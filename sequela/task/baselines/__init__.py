"""What simulation has to beat: plain models, fitted on the labels of the training patients."""
