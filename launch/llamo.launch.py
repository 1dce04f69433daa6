"""The three nodes, wired together: prompts in at /motion_generator/text, poses and trajectories out of /pose_publisher.

ros2 launch llamo_ros llamo.launch.py robot:=unitree_g1 checkpoint:=llamo-mini
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

MOTION = "/motion_generator/human_motion"


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("llamo_ros"))
    arguments = [
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share / "config" / "nodes.yaml"),
            description="Parameters of the nodes; the arguments below go before them.",
        ),
        DeclareLaunchArgument(
            "checkpoint", default_value="llamo-mini", description="Name of a shipped model, or a checkpoint folder."
        ),
        DeclareLaunchArgument("device", default_value="cpu", description="PyTorch device, such as cpu or cuda:0."),
        DeclareLaunchArgument(
            "robot", default_value="unitree_g1", description="Robot profile: a name or a .yaml file."
        ),
        DeclareLaunchArgument(
            "use_robot_description",
            default_value="false",
            description="Wait for the URDF on robot_description and use it in place of the profile's own.",
        ),
        DeclareLaunchArgument(
            "robot_description", default_value="/robot_description", description="Topic of the real robot's URDF."
        ),
        DeclareLaunchArgument(
            "use_measured_state",
            default_value="false",
            description="Start from the posture on joint_states. Set it on a real robot.",
        ),
        DeclareLaunchArgument(
            "motion", default_value=MOTION, description="Topic of the motion that is played and captioned."
        ),
        DeclareLaunchArgument(
            "joint_states", default_value="/joint_states", description="Topic of the real robot's state."
        ),
        DeclareLaunchArgument(
            "joint_trajectory",
            default_value="/pose_publisher/joint_trajectory",
            description="Topic of the trajectory controller, such as /joint_trajectory_controller/joint_trajectory.",
        ),
    ]
    params_file = LaunchConfiguration("params_file")

    def text(name: str) -> ParameterValue:
        # As text: a checkpoint folder called 2024 is no number.
        return ParameterValue(LaunchConfiguration(name), value_type=str)

    model = {"checkpoint": text("checkpoint"), "device": text("device")}
    motion = ("human_motion", LaunchConfiguration("motion"))
    nodes = [
        Node(
            package="llamo_ros",
            executable="motion_generator",
            name="motion_generator",
            parameters=[params_file, model],
            output="screen",
        ),
        Node(
            package="llamo_ros",
            executable="pose_publisher",
            name="pose_publisher",
            parameters=[
                params_file,
                {
                    "robot": text("robot"),
                    "use_robot_description": ParameterValue(
                        LaunchConfiguration("use_robot_description"), value_type=bool
                    ),
                    "use_measured_state": ParameterValue(LaunchConfiguration("use_measured_state"), value_type=bool),
                },
            ],
            remappings=[
                motion,
                ("joint_states", LaunchConfiguration("joint_states")),
                ("robot_description", LaunchConfiguration("robot_description")),
                ("~/joint_trajectory", LaunchConfiguration("joint_trajectory")),
            ],
            output="screen",
        ),
        Node(
            package="llamo_ros",
            executable="motion_captioner",
            name="motion_captioner",
            parameters=[params_file, model],
            remappings=[motion],
            output="screen",
        ),
    ]
    return LaunchDescription([*arguments, *nodes])
