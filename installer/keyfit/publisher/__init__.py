"""The publisher's side: brand files read, checked and compiled into what is signed. Left out of the frozen client."""
