"""How an ordinary user's process and the elevated helper talk: frames on two pipes, and the closed set of messages in them."""
