"""What was expected, written before the first reported seed was run.

B-A: about zero. Sixteen entries at random are easy once the encoder is warm.
C-A: positive. The nearest entries of the whole bank are harder than anything that a batch of 32 holds.
G-A: positive, for the same reason.
G-C: about zero. Copies of the positive are a few percent of what C is served.
D-G: negative while the encoder is weak: much of what scores near the positive is a mistake to learn from.
A': above A; against the served arms no sign is predicted.
C is served copies of its positives; G and D, which send the anchor's group, never are. F equals G pick by pick.
"""

NOT_PREDICTED = "not predicted"
EXPECTED = {
    "B-A": "about zero",
    "C-A": "positive",
    "G-A": "positive",
    "G-C": "about zero",
    "D-G": "negative",
    "A'-A": "positive",
    "G-A'": NOT_PREDICTED,
}
