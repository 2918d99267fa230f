"""How the latent loss of a law becomes the metric of the table; a link is one file, and one line here."""

from ragscale.fitting.solver.links._bounded import Bounded as Bounded
from ragscale.fitting.solver.links._identity import Identity as Identity
from ragscale.fitting.solver.links._link import Link as Link
from ragscale.fitting.solver.links._link import Space as Space
from ragscale.fitting.solver.links._logarithm import Log as Log
from ragscale.fitting.solver.links._negative import Negative as Negative
