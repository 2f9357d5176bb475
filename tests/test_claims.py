"""claims.csv: what is committed follows from results, where these are quick to have; a changed status fails."""

from pathlib import Path

import pandas as pd
import pytest

from experiments import authors, authors_models
from paper_figures import claims
from paper_figures.claims import CLAIMS, COLUMNS, REFERENCE
from paper_figures.results import Runs
from theory_checks import recovery
from theory_checks.claims import table

STATUSES = {"equal", "agrees", "refuted", "undecidable here"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # too few draws met a kink for an error
FILE = pd.read_csv(REFERENCE, keep_default_na=False).set_index("id")


def test_the_file_has_every_claim_once_with_a_verdict():
    assert list(FILE.index) == [claim.id for claim in CLAIMS]
    assert FILE.index.is_unique
    assert len(FILE) >= 30
    assert set(FILE["status"]) <= STATUSES
    assert (FILE["evidence"] == "this run").all()
    assert FILE["statement"].tolist() == [claim.statement for claim in CLAIMS]
    assert (FILE.loc[FILE["status"] != "undecidable here", "number"] != "nan").all()


def test_what_needs_no_run_is_as_written():
    for claim in CLAIMS:
        if not claim.experiment:
            assert claim.judge().status == FILE.loc[claim.id, "status"]


def test_the_claims_of_recovery_follow_from_the_theory():
    theory = table(recovery.claims())
    theory.insert(0, "file", "recovery")
    mine = [
        claim
        for claim in CLAIMS
        if claim.id.startswith(("recovery-", "remark", "guiding")) and claim.experiment == "theory"
    ]
    assert len(mine) == 9
    for claim in mine:
        assert claim.judge(theory).status == FILE.loc[claim.id, "status"], claim.id
    theory.loc[theory["claim"].str.startswith("f = Σ sin"), "verdict"] = "FAILS"
    assert next(claim for claim in mine if claim.id == "remark-sine").judge(theory).status == "undecidable here"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The authors' networks that are quickest."""
    folder = tmp_path_factory.mktemp("claims")
    try:
        for model in (("who", "linear"), ("who", "ffnnA"), ("heloc", "logistic"), ("heloc", "ffnnA")):
            authors_models.main(authors_models.Config(*model), folder)
    except authors.AbsentError as absent:
        pytest.skip(str(absent))
    return folder


def test_the_claims_of_the_authors_networks_follow_from_their_files(results):
    found = claims.claims(results).set_index("id")
    assert list(found.reset_index().columns) == COLUMNS
    here = found["evidence"] == "this run"
    theirs = [claim.id for claim in CLAIMS if claim.experiment in ("authors_models", "")]
    assert here[here].index.tolist() == theirs
    # σ = 0.01 is off by .085 on network A of HELOC, by .34 on B, which is not run here.
    changed = found.loc[here, "status"] != FILE.loc[here, "status"]
    assert set(found[here][changed].index) <= {"framework-vanilla-gradients"}, found[here][changed]
    assert (found.loc[~here, "status"] == FILE.loc[~here, "status"]).all()


def test_a_status_that_changes_is_seen(results):
    path = next(iter(results.glob("authors_models/heloc-ffnnA/explanations.csv")))
    frame = pd.read_csv(path)
    frame.loc[(frame["method"] == "Occlusion") & (frame["quantity"] == "relative difference"), "value"] = 1e-3
    frame.to_csv(path, index=False)
    found = claims.claims(results).set_index("id")
    assert found.loc["stored-occlusion", "status"] == "refuted"
    assert found.loc["stored-lime", "status"] == "agrees"


def test_without_results_and_reference_a_claim_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "REFERENCE", tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="has no theory, which shows theorem-1-lime"):
        claims.claims(Path(tmp_path))


def test_other_data_than_the_papers_judge_nothing(tmp_path, monkeypatch):
    """As of the demo: what was run on diabetes says nothing of WHO and HELOC."""
    (tmp_path / "perturbations" / "diabetes-mlp").mkdir(parents=True)
    (tmp_path / "perturbations" / "diabetes-mlp" / "manifest.json").write_text("{}")
    table = pd.DataFrame({"data": ["diabetes"], "model": ["mlp"], "features": ["all"], "native_split": [True]})
    monkeypatch.setattr(claims, "read", lambda folder, name: Runs(name, {"verdict": table}, []))
    found = claims.claims(tmp_path).set_index("id")
    shown = found[found["command"].str.contains("perturbations")]
    assert len(shown) >= 2
    assert (shown["evidence"] == "reference").all()
