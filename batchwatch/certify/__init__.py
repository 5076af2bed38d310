"""Send a receiver what it will meet in life, and judge each answer by the rule behind it.

A receiver is wrong in two ways: it takes what it should refuse, and then
anybody can tell it anything; or it refuses what it should take, and then
batchwatch tries again for days. The messages are made, signed and sent by
what does so in earnest. Only their batches are made up, and marked as such:
the watch is called certify, and their ids begin with bat-certify-.
"""

from batchwatch.certify.trial import Finding, Verdict, certify

__all__ = ["Finding", "Verdict", "certify"]
