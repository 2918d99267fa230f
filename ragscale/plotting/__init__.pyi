from ._fits import allocation as allocation
from ._fits import contours as contours
from ._fits import exchange as exchange
from ._fits import parity as parity
from ._fits import residuals as residuals
from ._fits import slices as slices
from ._fits import surface as surface
