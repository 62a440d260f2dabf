"""Official archives: what there is (`catalogue`), one file over an unreliable line (`transfer`), a whole archive (`archive`)."""
