"""What other trainers call keys of a recipe, for suggestions: TRL and transformers, axolotl, LLaMA-Factory, verl, vLLM.

They are never read as these keys: the same name may mean a slightly different quantity there.
"""

from collections.abc import Mapping, Sequence
from typing import Final

_NAMES: Final = {
    "models.policy.model": "model model_name model_name_or_path base_model model_path policy pretrained",
    "models.policy.revision": "model_revision revision_of_model",
    "models.policy.trust_remote_code": "trust_remote_code",
    "models.policy.lora": "lora peft peft_config use_peft use_lora",
    "models.policy.lora.rank": "r lora_r lora_rank",
    "models.policy.lora.alpha": "lora_alpha",
    "prompts": "dataset datasets dataset_name data data_files train_file train_files train_dataset prompt_file",
    "prompts.split": "dataset_split dataset_train_split",
    "prompts.columns.prompt": "prompt_key prompt_column",
    "prompts.system_prompt": "system default_system",
    "sampling.num_responses": "n num_generations num_return_sequences num_samples rollout_n best_of",
    "sampling.temperature": "temperature",
    "sampling.top_p": "top_p",
    "sampling.max_tokens": "max_new_tokens max_completion_length max_response_length response_length max_tokens",
    "engine.context_tokens": "max_model_len",
    "engine.kind": "backend infer_backend vllm use_vllm",
    "engine.gpu_memory_utilization": "gpu_memory_utilization vllm_gpu_memory_utilization",
    "engine.max_num_seqs": "max_num_seqs",
    "training.learning_rate": "lr learning_rate",
    "training.lr_scheduler": "lr_scheduler lr_scheduler_type scheduler",
    "training.warmup_ratio": "warmup_ratio",
    "training.warmup_steps": "warmup_steps lr_warmup_steps",
    "training.batch_size": "bs batch_size train_batch_size global_batch_size ppo_mini_batch_size",
    "training.micro_batch_size": "micro_batch_size micro_bs ppo_micro_batch_size_per_gpu",
    "training.num_epochs": "epochs num_epochs num_train_epochs ppo_epochs",
    "training.max_pairs": "max_samples",
    "training.beta": "beta dpo_beta pref_beta kl_coef rl_beta",
    "training.losses": "loss losses loss_type pref_loss",
    "training.optimizer": "optim optimizer",
    "training.weight_decay": "weight_decay",
    "training.max_grad_norm": "max_grad_norm grad_clip gradient_clipping",
    "training.gradient_checkpointing": "gradient_checkpointing",
    "training.save_every_steps": "save_steps",
    "training.reference": "ref_model reference_model",
    "training.packing": "packing sample_packing",
    "engine.dtype": "dtype",
    "iterations.max": "steps max_steps num_iterations max_iterations total_epochs",
    "iterations.num_prompts_per_iteration": "num_prompts prompts_per_iteration",
    "evaluation.prompts": "eval_dataset test_dataset val_files eval_file",
    "evaluation.num_prompts": "val_size val_set_size eval_size num_eval_prompts",
    "judging": "judge reward reward_funcs reward_model",
    "judging.by": "judge_model",
    "checkpoints.keep": "save_total_limit",
    "launch.nodes": "num_machines num_nodes nnodes",
    "launch.processes_per_node": "num_processes n_gpus_per_node num_gpus nproc_per_node",
    "launch.sharding": "fsdp",
    "launch.accelerate_config": "deepspeed deepspeed_config accelerate_config_file",
    "monitor.max_hours": "max_hours time_limit",
    "output_dir": "output output_path save_dir default_local_dir",
    "name": "run_name experiment_name project_name",
    "seed": "random_seed",
}

KEYS: Final[Mapping[str, str]] = {alias: key for key, aliases in _NAMES.items() for alias in aliases.split()}
"""Keys of a recipe by the last part of what users write instead."""

_JUDGES: Final = {"by": "model judge judge_model judge_name grader", "num_draws": "n num_samples num_generations"}
_IN_SECTION: Final = {
    "models": {"model": "path name id model_id repo repo_id"},
    "judging": _JUDGES,
    "evaluation": _JUDGES,
    "prompts": {"path": "file filename", "name": "dataset hub_id"},
}

_BATCH = (
    "training.batch_size is the number of pairs of an optimizer step, on all processes together; "
    "training.micro_batch_size and training.micro_batch_tokens divide it, without changing the result; set these"
)
_LENGTH = "engine.context_tokens limits prompt and response together, and sampling.max_tokens the response; set these"
_DTYPE = "training.weights_dtype is the dtype of the trained weights, and engine.dtype that of the engine; set these"
_ADAPTERS = "models.policy.lora: {} trains adapters, and without it all weights are trained; set that instead"
_UNQUANTISED = (
    "models.policy.lora.base_dtype: nf4 stores the weights below adapters in 4 bits; weights that are trained "
    "themselves are never quantised; set that instead"
)
_ALGORITHM = (
    "there is none for this: the algorithm is always on-policy DPO; training.losses selects its loss; remove it"
)
_TRACKERS = (
    "there is none for this: there are no trackers; metrics.jsonl and report.json in the run folder have every "
    "metric; remove it"
)
_LOG = "there is none for this: run.log in the run folder has a line for every optimizer step; remove it"
_EVALUATION = "there is none for this: held-out prompts are evaluated after every iteration; remove it"
_SAVING = "training.save_every_steps saves the training, and checkpoints.keep limits the checkpoints kept; set these"
_LAYERS = "there is none for this: adapters are in all linear layers and without dropout; remove it"
_ONE_GPU = "there is none for this: vLLM runs on one GPU; launch.processes_per_node is for the training; remove it"
_RESUME = "there is none for this: the same command resumes a run; --from RUN@T starts another one; remove it"
_ATTENTION = "there is none for this: attention is chosen by the engine and by training.packing; remove it"

_SENTENCES: Final = {
    _BATCH: "per_device_train_batch_size gradient_accumulation_steps accumulate_grad_batches "
    "gradient_accumulation per_device_batch_size",
    _LENGTH: "max_length max_seq_length max_seq_len sequence_len cutoff_len max_prompt_length",
    _DTYPE: "bf16 fp16 torch_dtype pure_bf16 mixed_precision",
    _ADAPTERS: "adapter finetuning_type peft_type",
    _UNQUANTISED: "load_in_4bit load_in_8bit quantization quantization_bit qlora quantization_config",
    _ALGORITHM: "rl stage algorithm adv_estimator rl_algorithm trainer do_train",
    _TRACKERS: "report_to wandb wandb_project use_wandb logger logging_dir push_to_hub",
    _LOG: "logging_steps log_every logging_strategy log_freq",
    _EVALUATION: "eval_steps eval_strategy evaluation_strategy evals_per_epoch test_freq",
    _SAVING: "save_steps save_strategy saves_per_epoch save_freq",
    _LAYERS: "lora_dropout lora_target lora_target_modules target_modules lora_target_linear",
    _ONE_GPU: "tensor_parallel_size tensor_model_parallel_size vllm_tensor_parallel_size",
    _RESUME: "resume_from_checkpoint overwrite_output_dir auto_resume_from_checkpoints resume",
    _ATTENTION: "flash_attention attn_implementation flash_attn",
}

ANSWERS: Final[Mapping[str, str]] = {name: text for text, names in _SENTENCES.items() for name in names.split()}
"""What to do instead of a key of other trainers that no single key here replaces."""

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "training.losses": {
        "dpo": "DPO's loss is 'sigmoid'",
        "ln_dpo": "length-normalised DPO is 'sigmoid_norm'",
        "rdpo": "R-DPO is 'length_regularized'",
        "r-dpo": "R-DPO is 'length_regularized'",
        "rpo": "Iterative RPO is two losses, 'sigmoid' and 'nll'",
        "cross_entropy": "did you mean 'nll'?",
    },
    "training.optimizer": {"adam": "did you mean 'adamw'?"},
}
"""What to do instead of a value of other trainers, by the key without places in lists."""


def of_section(section: Sequence[str]) -> dict[str, str]:
    """Return the keys of a section by names that mean something else in other sections."""
    names = _IN_SECTION.get(section[0], {}) if section else {}
    return {alias: key for key, aliases in names.items() for alias in aliases.split()}
