"""How long explanations take, how much memory, and how many evaluations an accuracy takes: python -m experiments.bench

Everything that is compared runs in one process on one thread, in turns (A B C, A B C, …), and is compared by ratios of
process times, medians over the rounds, because machines are noisy.
"""
