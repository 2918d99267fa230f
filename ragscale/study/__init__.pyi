from ._config import Grid as Grid
from ._config import StudyConfig as StudyConfig
from ._jobs import Executor as Executor
from ._jobs import Needs as Needs
from ._page import Page as Page
from ._report import write_report as write_report
from ._select import select as select
from ._study import Study as Study
