"""How well words are found: ICDAR 2015's rules, tightness, recall by height, quality of priors."""
