"""Audio embeddings from JSON templates (Py-Torch-DAE): any public model behind six functions.

A template is one JSON file which says how a model is installed, imported, initialised and run, as lists of shell
and Python commands. This package reads such files and runs them. It needs nothing but the standard library; what
a template imports is the template's own affair.

    from deep_audio_embedding import (
        load_model_dict, install_dependencies, import_pkgs, model_init, pre_proc, compute_embedding,
    )

    model_dict = load_model_dict("general_purpose/log_mel_statistics.json")
    install_dependencies(model_dict)                 # shell
    namespace = import_pkgs(model_dict)              # Python or shell, in `import_context`
    model = model_init(model_dict, namespace)        # defines `model`, in `model_init_context`
    x_pre = pre_proc(model_dict, x, namespace)       # transforms `x`, in `pre_proc_context`
    y = compute_embedding(model_dict, model, x_pre, namespace)  # assigns `y`

**A template is a program.** Its commands run with all rights of the calling process and nothing here can stop one
that never ends. `describe_template` shows everything that would run without running any of it: read it before the
first use of a template from elsewhere. What is refused early are faulty *files*: too large, too deep, not UTF-8,
wrong types, unknown or double keys, contexts outside the working directory.

A **declarative** template has `entry` (`"package.module:callable"`), `entry_kwargs` and named `pre_processing`
steps in place of commands. The same six functions run it: import, call, pre-process, `y = model(x)`. To name a
callable is to name a program, too: these functions call any, `avex.load_model` few without being told to trust.

The working directory and `sys.path` belong to the whole process, so steps run one at a time (other threads wait)
and both are put back when a step ends, however it ends. Imported modules stay in `sys.modules`, as with any
import: two templates whose clones both hold a `model.py` need two processes.
"""

from __future__ import annotations

from deep_audio_embedding._describe import PlannedStep, TemplatePlan, describe_template
from deep_audio_embedding._errors import (
    CommandError,
    EntryError,
    InputShapeError,
    MissingResultError,
    ShellCommandError,
    TemplateError,
    TemplateFormatError,
    TemplateNotFoundError,
    printable,
)
from deep_audio_embedding._paths import list_templates
from deep_audio_embedding._steps import (
    Namespace,
    compute_embedding,
    import_pkgs,
    install_dependencies,
    model_init,
    pre_proc,
)
from deep_audio_embedding._template import ModelDict, load_model_dict

__all__ = [
    "CommandError",
    "EntryError",
    "InputShapeError",
    "MissingResultError",
    "ModelDict",
    "Namespace",
    "PlannedStep",
    "ShellCommandError",
    "TemplateError",
    "TemplateFormatError",
    "TemplateNotFoundError",
    "TemplatePlan",
    "compute_embedding",
    "describe_template",
    "import_pkgs",
    "install_dependencies",
    "list_templates",
    "load_model_dict",
    "model_init",
    "pre_proc",
    "printable",
]
