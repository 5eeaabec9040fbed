"""What this program is called, which version it is, and what it must not be used for."""

NAME = "MIM Segment"
VERSION = "0.1.0"
NOTICE = "Research use only. Not a medical device."
