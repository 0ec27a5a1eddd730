"""What searches over the blocks of a network share, whatever the network (Puzzle's method).

Closed-form fits of a narrower block (:mod:`moments`), repair of noisy scores (:mod:`isotonic`),
the search that keeps its promise on the device (:mod:`search`), and what it has to beat
(:mod:`baselines`). Families say what their blocks are, train them and take their scores.
"""
