"""Settings: a frozen model for each section of params.yaml, one file a group of sections. Presets are in presets/."""

from capnet.config.data import Data as Data
from capnet.config.data import Drift as Drift
from capnet.config.data import Exponential as Exponential
from capnet.config.data import Ingest as Ingest
from capnet.config.data import Pareto as Pareto
from capnet.config.data import RequirePositives as RequirePositives
from capnet.config.data import Split as Split
from capnet.config.data import Validate as Validate
from capnet.config.data import Validation as Validation
from capnet.config.model import Backbone as Backbone
from capnet.config.model import Runtime as Runtime
from capnet.config.model import Tte as Tte
from capnet.config.params import Params as Params
from capnet.config.params import load as load
from capnet.config.params import override as override
from capnet.config.params import parse as parse
from capnet.config.params import settings_hash as settings_hash
from capnet.config.results import Evaluate as Evaluate
from capnet.config.results import Register as Register
from capnet.config.results import Report as Report
from capnet.config.train import Adapter as Adapter
from capnet.config.train import Prompt as Prompt
from capnet.config.train import Train as Train
from capnet.model.losses import Loss as Loss
from capnet.section import Int as Int
from capnet.section import Section as Section
