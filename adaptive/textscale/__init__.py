"""Scale-aware text detection: predict where text is and how large, then spend pixels there."""
