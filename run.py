"""Run a campaign: `python run.py configs/quickstart.yaml`; the same program as `fff run`."""

from fff.cli.app import main_run

if __name__ == "__main__":
    main_run()
