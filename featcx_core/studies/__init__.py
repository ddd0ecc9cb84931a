"""What many targets say together: prediction, the paper's claims, their measures; the judge of all verdicts."""
